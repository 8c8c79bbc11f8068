# cmake -DINPUT=FILE -DOUTPUT=FILE -DNAME=NAME -P PmiEmbed.cmake: the bytes of a file, and a NUL, as an
# array in C.
file(READ "${INPUT}" bytes HEX)
string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}00")
string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n" bytes
                     "${bytes}")
file(WRITE "${OUTPUT}.new" "extern const unsigned char ${NAME}[];\nconst unsigned char ${NAME}[] = {\n${bytes}};\n")
file(RENAME "${OUTPUT}.new" "${OUTPUT}")
