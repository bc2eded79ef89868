"""The mount: the kernel's side only. Asynchronous; everything it shows comes from tree."""
