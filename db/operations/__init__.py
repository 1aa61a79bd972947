"""What operators ask of the ledger, what is deleted for them, and the ledger's own clean-up."""
