"""The command line. Only here: printing, prompting, environment, exit codes."""
