"""The command line: options in, calls, results out. Only here: print, prompt, environment, exit codes."""
