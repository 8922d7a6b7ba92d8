from switchyard.room_app import room_app

ApiConfig = room_app("switchyard.api", "API")
