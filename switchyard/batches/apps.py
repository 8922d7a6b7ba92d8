from switchyard.room_app import room_app

BatchesConfig = room_app("switchyard.batches", "Batches")
