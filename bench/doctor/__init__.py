"""The doctor asked about the samplers that are installed."""
