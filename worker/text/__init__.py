"""Text and data made fit for where they go: Postgres, a list of bounded length, a person's eye."""
