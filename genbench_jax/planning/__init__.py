"""What a run will cost, told before anything is spent: arithmetic on configurations, no device and no weights."""
