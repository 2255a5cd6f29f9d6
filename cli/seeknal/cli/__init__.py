"""The `seeknal` command: one module per command or group of commands, rendering apart from logic."""
