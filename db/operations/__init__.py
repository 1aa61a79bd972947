"""What operators ask of the ledger, what is deleted for them, and its own clean-up."""
