from switchyard.room_app import room_app

HistoryConfig = room_app("switchyard.history", "History")
