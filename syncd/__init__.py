"""syncd keeps Proxmox VE's template storage in step with a container registry."""

__version__ = "0.1.0"
