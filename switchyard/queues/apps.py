from switchyard.room_app import room_app

QueuesConfig = room_app("switchyard.queues", "Queues")
