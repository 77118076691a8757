"""The command line `recorder`: one file a command."""
