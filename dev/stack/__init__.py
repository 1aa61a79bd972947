"""`baton up`: the embedded servers, every process of the Procfile, and keeping them alive."""
