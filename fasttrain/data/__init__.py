"""Pictures: where they come from, which ones a batch holds, and how they reach the device."""
