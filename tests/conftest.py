pytest_plugins = ["requirements"]
