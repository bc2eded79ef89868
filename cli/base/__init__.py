"""What all commands share: settings, passwords, output, progress, exit codes."""
