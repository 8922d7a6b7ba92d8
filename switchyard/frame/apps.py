from switchyard.room_app import room_app

FrameConfig = room_app("switchyard.frame", "Frame of the operations room")
