"""Answers of DescribeInstances as EC2 gives them, and a server that gives them: what inventories are measured with."""

from __future__ import annotations

import argparse
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

FARM = "studio"
ACCOUNT = "123456789012"
ZONES = ("eu-central-1a", "eu-central-1b", "eu-central-1c")
TYPES = ("c7i.4xlarge", "c7a.4xlarge", "c6i.4xlarge", "c6a.4xlarge", "m7i.4xlarge")

# An element for each member that a running instance in a VPC has, in the order and the notation of the example response
# (EC2 API Reference, DescribeInstances, Examples; Instance).
_ITEM = """<item><reservationId>r-{n:017x}</reservationId><ownerId>{account}</ownerId><groupSet/>
<instancesSet><item><instanceId>i-{n:017x}</instanceId><imageId>ami-0123456789abcdef0</imageId>
<instanceState><code>16</code><name>running</name></instanceState>
<privateDnsName>ip-{dashed}.eu-central-1.compute.internal</privateDnsName><dnsName/><reason/>
<keyName>studio</keyName><amiLaunchIndex>0</amiLaunchIndex><productCodes/>
<instanceType>{type}</instanceType><launchTime>2026-10-14T08:{minute:02d}:{second:02d}.000Z</launchTime>
<placement><availabilityZone>{zone}</availabilityZone><availabilityZoneId>euc1-az2</availabilityZoneId>
<groupName/><tenancy>default</tenancy></placement><platform>windows</platform>
<monitoring><state>disabled</state></monitoring><subnetId>subnet-0{zone_number}23456789abcdef0</subnetId>
<vpcId>vpc-0123456789abcdef0</vpcId><privateIpAddress>{address}</privateIpAddress>
<sourceDestCheck>true</sourceDestCheck><groupSet><item><groupId>sg-0123456789abcdef0</groupId>
<groupName>studio-render_node</groupName></item></groupSet><architecture>x86_64</architecture>
<rootDeviceType>ebs</rootDeviceType><rootDeviceName>/dev/sda1</rootDeviceName><blockDeviceMapping><item>
<deviceName>/dev/sda1</deviceName><ebs><volumeId>vol-{n:017x}</volumeId><status>attached</status>
<attachTime>2026-10-14T08:00:01.000Z</attachTime><deleteOnTermination>true</deleteOnTermination></ebs></item>
</blockDeviceMapping><virtualizationType>hvm</virtualizationType>{lifecycle}<clientToken>{n:032x}</clientToken>
<tagSet><item><key>Name</key><value>studio-render-node</value></item><item><key>renderfarm:farm</key>
<value>{farm}</value></item><item><key>renderfarm:role</key><value>render_node</value></item><item>
<key>renderfarm:image</key><value>studio-2026-10-14</value></item><item><key>aws:ec2:fleet-id</key>
<value>fleet-01234567-89ab-cdef-0123-456789abcdef</value></item></tagSet><hypervisor>xen</hypervisor>
<networkInterfaceSet><item><networkInterfaceId>eni-{n:017x}</networkInterfaceId>
<subnetId>subnet-0{zone_number}23456789abcdef0</subnetId><vpcId>vpc-0123456789abcdef0</vpcId><description/>
<ownerId>{account}</ownerId><status>in-use</status><macAddress>{mac}</macAddress>
<privateIpAddress>{address}</privateIpAddress>
<privateDnsName>ip-{dashed}.eu-central-1.compute.internal</privateDnsName><sourceDestCheck>true</sourceDestCheck>
<groupSet><item><groupId>sg-0123456789abcdef0</groupId><groupName>studio-render_node</groupName></item></groupSet>
<attachment><attachmentId>eni-attach-{n:017x}</attachmentId><deviceIndex>0</deviceIndex><status>attached</status>
<attachTime>2026-10-14T08:00:00.000Z</attachTime><deleteOnTermination>true</deleteOnTermination>
<networkCardIndex>0</networkCardIndex></attachment><privateIpAddressesSet><item>
<privateIpAddress>{address}</privateIpAddress>
<privateDnsName>ip-{dashed}.eu-central-1.compute.internal</privateDnsName><primary>true</primary></item>
</privateIpAddressesSet><ipv6AddressesSet/><interfaceType>interface</interfaceType></item></networkInterfaceSet>
<ebsOptimized>true</ebsOptimized><enaSupport>true</enaSupport><cpuOptions><coreCount>8</coreCount>
<threadsPerCore>2</threadsPerCore></cpuOptions><capacityReservationSpecification>
<capacityReservationPreference>open</capacityReservationPreference></capacityReservationSpecification>
<hibernationOptions><configured>false</configured></hibernationOptions><enclaveOptions><enabled>false</enabled>
</enclaveOptions><metadataOptions><state>applied</state><httpTokens>required</httpTokens>
<httpPutResponseHopLimit>1</httpPutResponseHopLimit><httpEndpoint>enabled</httpEndpoint>
<httpProtocolIpv6>disabled</httpProtocolIpv6><instanceMetadataTags>enabled</instanceMetadataTags></metadataOptions>
<platformDetails>Windows</platformDetails><usageOperation>RunInstances:0002</usageOperation>
<usageOperationUpdateTime>2026-10-14T08:00:00.000Z</usageOperationUpdateTime>
<privateDnsNameOptions><hostnameType>ip-name</hostnameType><enableResourceNameDnsARecord>false</enableResourceNameDnsARecord>
<enableResourceNameDnsAAAARecord>false</enableResourceNameDnsAAAARecord></privateDnsNameOptions>
<maintenanceOptions><autoRecovery>default</autoRecovery></maintenanceOptions><currentInstanceBootMode>legacy-bios
</currentInstanceBootMode></item></instancesSet></item>"""
_ITEM = re.sub(r"\n(?=<)|\n(?=</)", "", _ITEM)  # EC2 indents; blanks between elements mean nothing


def item(number: int) -> str:
    """The reservation of one render node; every fourth is on demand, the others are spot."""
    octets = (10, number >> 16 & 255, number >> 8 & 255, number & 255)
    zone = number % len(ZONES)
    return _ITEM.format(
        n=number,
        account=ACCOUNT,
        farm=FARM,
        address=".".join(map(str, octets)),
        dashed="-".join(map(str, octets)),
        mac="0a:00:" + ":".join(f"{octet:02x}" for octet in number.to_bytes(4)),
        zone=ZONES[zone],
        zone_number=zone,
        type=TYPES[number % len(TYPES)],
        minute=number // 60 % 60,
        second=number % 60,
        lifecycle="" if number % 4 == 0 else "<instanceLifecycle>spot</instanceLifecycle>",
    )


def page(items: str, token: str = "") -> bytes:
    """A whole answer."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        "<requestId>fdcdcab1-ae5c-489e-9c33-4637c5dda355</requestId>"
        f"<reservationSet>{items}</reservationSet>"
        + (f"<nextToken>{token}</nextToken>" if token else "")
        + "</DescribeInstancesResponse>"
    ).encode()


def serve(number: int) -> ThreadingHTTPServer:
    """A server, not yet running, whose region holds this many instances.

    Like EC2 it gives pages of MaxResults, and everything at once to who asks without it.
    """
    items = [item(n) for n in range(1, number + 1)]
    pages: dict[tuple[int, int], bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            if asked["Action"] != ["DescribeInstances"]:
                self.send_error(400, f"only DescribeInstances is recorded, not {asked['Action'][0]}")
                return
            start = int(asked.get("NextToken", ["0"])[0])
            size = int(asked.get("MaxResults", [str(number)])[0])
            if (start, size) not in pages:
                end = start + size
                pages[start, size] = page("".join(items[start:end]), str(end) if end < number else "")
            body = pages[start, size]
            self.send_response(200)
            self.send_header("Content-Type", "text/xml;charset=UTF-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.recorded", description=__doc__)
    parser.add_argument("instances", type=int)
    server = serve(parser.parse_args().instances)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
