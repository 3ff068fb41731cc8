"""WinRM as ansible-core speaks it: transport, authentication, decoded payloads, argument specifications."""
