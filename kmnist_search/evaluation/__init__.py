"""How a model is judged: the figures of a result, the test set, and the ledger of every look at it."""
