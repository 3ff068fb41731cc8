"""Windows hosts: a model of what Ansible, farmnode and the services see of one."""
