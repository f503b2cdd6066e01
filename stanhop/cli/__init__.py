"""The command line: it parses, calls one library function a command, and prints."""
