"""No pages: the yard's own belong to apps that this one does without."""

urlpatterns: list[object] = []
