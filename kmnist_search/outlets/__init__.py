"""Where the events of a run also go: messages to a webhook, and TensorBoard."""
