"""The evaluation of models: their figures, the test set, and the ledger of every look at it."""
