"""Deployment files made from the declared yard: one module a file or a part of one, plain data in, text out."""
