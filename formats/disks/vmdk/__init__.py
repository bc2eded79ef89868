"""VMware's VMDK: monolithic, split, stream-optimised and ESX images."""
