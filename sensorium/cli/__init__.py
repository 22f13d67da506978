"""The command line: thin; heavy imports happen inside commands."""
