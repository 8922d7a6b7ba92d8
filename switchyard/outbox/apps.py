from switchyard.room_app import room_app

OutboxConfig = room_app("switchyard.outbox", "Outbox")
