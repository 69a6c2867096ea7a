"""Why two models differ: which layer first, which cause, which smallest input."""
