from switchyard.room_app import room_app

JobsConfig = room_app("switchyard.jobs", "Jobs")
