"""VirtualBox's VDI."""
