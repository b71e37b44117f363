"""What a run will need before it starts: memory, time, money, and the nearest plan that fits."""
