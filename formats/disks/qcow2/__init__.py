"""QEMU's qcow2 (docs/interop/qcow2.txt in QEMU's source)."""
