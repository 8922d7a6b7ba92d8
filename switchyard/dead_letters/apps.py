from switchyard.room_app import room_app

DeadLettersConfig = room_app("switchyard.dead_letters", "Dead letters")
