"""Learn mode: what comes to the door, kept small, and the ``clients`` section that fits it."""
