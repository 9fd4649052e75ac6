pytest_plugins = ["quick", "requirements"]
