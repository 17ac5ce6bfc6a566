// Nothing: it is there so that the headers which cmake/Floors.cmake lists are compiled once.
