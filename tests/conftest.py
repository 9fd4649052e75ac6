pytest_plugins = ["browser", "quick", "requirements"]
