"""The yard with one more product: an API route whose job does nothing, so that only the overhead is measured."""
