from switchyard.room_app import room_app

ServingConfig = room_app("switchyard.serving", "Serving")
