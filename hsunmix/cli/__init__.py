"""The command `hsunmix`: one module per subcommand. Nothing heavy is imported before a subcommand runs."""
