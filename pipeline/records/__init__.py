"""What lets a record survive a silent server and a killed driver: outbox, delivery, guardian."""
