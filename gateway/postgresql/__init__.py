"""PostgreSQL as the spool's engine, and what several instances on one queue owe each other."""
