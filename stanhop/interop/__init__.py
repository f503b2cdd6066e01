"""STanHop-Net in the tools that others build: each module speaks the language of one of them."""
