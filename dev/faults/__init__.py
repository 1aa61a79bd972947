"""What tests need within a process of the product, to strike it at a named moment."""
