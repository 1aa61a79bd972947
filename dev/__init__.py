"""Outside the product: `baton up` and its servers, the demo, the bench, what tests strike with."""
