"""The confined process that parses guests: protocol, sandbox, system call filter."""
