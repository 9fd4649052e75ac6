"""Software side: configuration, data, sparse training, the frozen network and its golden model, mapping,
estimates, exploration, reports and the command line. No hardware description lives here."""

__version__ = "0.1.0"
