"""The yard with one product more: a route of the API whose job does nothing, so that its way alone is measured."""
